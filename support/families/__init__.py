"""Tiny random components: one module per package of `diffusers.pipelines`, one function per pipeline class."""
