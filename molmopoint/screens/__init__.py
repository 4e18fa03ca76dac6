"""Screens: pages drawn by a real browser, what can be seen on them, and questions about it.

A page is opened in Chromium, at several sizes and in several looks. The browser tells role, name and state of
every element, and which parts of it a person sees; the picture tells its colour. Questions are made of that,
and written as training data.
"""
