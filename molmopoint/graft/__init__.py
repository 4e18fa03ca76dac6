"""Grounding heads on other vision-language models of transformers: a host, and what makes it point.

A graft has all weights of its host under their own names, and two modules beside them: the grounding heads,
and the map of ViT features into the text model. How each family of hosts sees, counts positions and runs is
in `hosts`; everything else is the same for all of them.
"""
