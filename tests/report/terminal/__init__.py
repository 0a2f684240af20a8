"""Tests of the tables for the terminal."""
