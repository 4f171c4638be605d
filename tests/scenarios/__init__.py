"""Scenarios written from the design alone: catalogues and holdings in, cells of the cube out."""
