"""Checks of all that yoloop needs: `/ready` and `yoloop doctor`."""
