"""This library as a part of others' tools. Each module needs the package it is named after, once used."""

__all__ = list[str]()
