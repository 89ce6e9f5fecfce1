"""aMUSEd: a small open reproduction of MUSE, a masked image transformer beside a CLIP text encoder."""
