"""Turns DATA into batches: lists files, decodes and preprocesses images, reads arrays and selects samples.

Nothing in this package knows what is measured on the batches, or where they are sent.
"""
