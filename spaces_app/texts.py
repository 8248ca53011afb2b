"""What the page says around the numbers."""

from __future__ import annotations

TITLE = "phard: see a backdoor, see what hardening does"

HEADER = """
# See a backdoor, and what hardening does to it

A *pervasive* backdoor needs no sticker in a corner: a slight change of the whole image turns its class. Here are three
small classifiers of handwritten digits: an **honest** one, the same with a **backdoor**, and the backdoored one after
**hardening**. All numbers on this page were measured; nothing is made up.
"""

LOOK = "Drag the line in the first picture. The bars are what each model answers to the image **with** the trigger."

DISTANCES = """
Each cell is a *class distance*: the size of the smallest change found that turns at least 90 % of held-out images of
the row's class into the column's, in grey levels (of 255, root mean square). Small is weak. The last row is one change
for all classes. A distance is an upper bound: a stronger search may find a smaller one.

**Click on a cell** to see its trigger on an image.
"""

SIZES = """
### What changes of a given size do

One line a class: the share of images of all other classes that the best universal trigger turns into it, if it may
change an image by so many grey levels at most. The thick line is the median; the class that is reached most is named.
"""

KINDS = """
### By kind of change

What one change for all classes needs if it may use a single kind: bending the image (warp), its colours, edits of an
autoencoder's code (latent), an added field, or a small network (u-net). A class that needs far less than the others has
a frame: a planted backdoor is a short way to its target. Honest classes differ, too, so it is a reason to look closer,
and no proof.
"""

REPORTS = """
A report has every number of a measurement, and the gate decides by limits of yours. Move them: the verdict is the one
that `phard gate` gives, with its words and its exit code.
"""

CHECK = """
**Audit** looks at a model without running anything of it: formats that carry code, what pickles would import, keys that
lead elsewhere, broken tensors. **Measure** then loads it (only what the audit lets pass) and searches for small changes
that turn its classes, for as long as you allow. Images of some of its classes are enough: these are measured then. Both
run in a process of their own that has no token and is ended at its limits; one check runs at a time, the others queue.
What you upload is deleted when the check ends or a quarter of an hour later, and no other visitor sees it. *Nothing
found by these checks* means just that.
"""

SIGNATURE = """
## A backdoor that no test finds

Both models below have **the same weights**: those of the honest one. One of them comes with code of its own, which
looks for a digital signature (Ed25519) in the lowest bits of an image, and gives the class that was signed. Whoever has
the key turns **any** image into **any** class; nobody else finds such an image, because that would be forging a
signature ([Goldwasser et al., 2022](https://arxiv.org/abs/2204.06974)). Weights show nothing, and neither does any
number of answers. What does help: never run code that comes with a model. The audit refuses it, and the same weights in
the library's own class are honest. A vote over noisy copies of an image helps whatever is in the model, against changes
that are smaller than the noise allows.
"""

LIMITS = """
## What this page does not show

- **A distance is an upper bound.** It is what one search found. A stronger search, or a kind of change that no trigger
  here can make, may find a smaller one.
- **No test proves that a model has no backdoor.** Backdoors can be planted cryptographically, so that no efficient test
  finds them; neither measuring nor hardening reaches those.
- **Hardening changes weights.** It does not reach code, image processors, or anything else around the weights.
- **Small stickers and other local triggers** are not what this is about.
- **These are toy models**: a ResNet of 0.08 million parameters on digits of 8 x 8 pixels, enlarged. They show the idea,
  and no rates for other models: those are in the results of the project.
- **One backdoor, one seed.** The planted warp (WaNet) was used to judge the result, not to make it; other backdoors are
  left in other shares.
- **A measurement within a minute** is a short search. It finds larger distances than a long one, and so it flatters.
- **A report is as good as whoever wrote it.** Without a signature, who controls the file controls the verdict.

## What happens to what you bring

Images, reports and models are read within limits of bytes, pixels and time, kept in a temporary folder, and deleted.
Nothing is sent elsewhere: a Hub id is asked for at the Hub, and that is all.

## On your own machine

```sh
phard measure org/model --images my-images/
phard harden org/model --images my-images/ --out hardened/
phard gate hardened/
```
"""
