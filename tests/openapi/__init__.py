"""Tests of the API documents, and by them of both applications."""
