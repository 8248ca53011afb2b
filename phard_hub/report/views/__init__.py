"""Views of a report, of a verdict, of an audit and of a comparison."""
