"""MANSCDP: the XML commands of GB/T 28181-2022 Annex A.

`xml.parse` turns bytes into a `Document`; `messages` has one frozen dataclass per message with a lenient reader
and a strict writer.
"""
