"""Many kinds of models go the whole way: from one repository on the Hub to another, and are used from there."""
