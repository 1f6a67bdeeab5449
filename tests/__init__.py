"""The tests mirror `toolkit/`. A package, because NeMo installs another one named `tests`."""
