"""Which records of an answer section belong to the name that was asked for (RFC 1034, section 4.3.2; RFC 6672).

Rules: no clock, no socket; the order of the records does not matter; the work is proportional to their number, whatever
they say.
"""

from collections.abc import Iterable, Sequence

from heimdall_lib import wire


def belongs(message: bytes, asked: bytes, answers: Sequence[wire.Record]) -> bool:
    """Say whether every one of ``answers`` is for the name ``asked`` (lower case) or for an alias of it.

    A DNAME belongs where it stands above such a name. Raises WireError when a name on the way cannot be read.
    """
    if all(message[record.start : record.start + 2] == wire.TO_QUESTION for record in answers):
        return True
    owners = [wire.name(message, record.start) for record in answers]
    aliases: dict[bytes, list[bytes]] = {}
    redirected = False
    for owner, record in zip(owners, answers, strict=True):
        if record.type == wire.TYPE_CNAME:
            aliases.setdefault(owner, []).append(wire.name(message, record.rdata))
        elif record.type == wire.TYPE_DNAME:
            redirected = True
    names: set[bytes] = set()
    found = [asked]
    while found:
        name = found.pop()
        if name not in names:
            names.add(name)
            found += aliases.get(name, ())
    above = _above(names) if redirected else set()
    return all(
        owner in names or (record.type == wire.TYPE_DNAME and owner in above)
        for owner, record in zip(owners, answers, strict=True)
    )


def _above(names: Iterable[bytes]) -> set[bytes]:
    """Return every name above one of ``names``, which are uncompressed; none is looked at twice."""
    above: set[bytes] = set()
    for name in names:
        parent = name
        while parent[0]:
            parent = parent[parent[0] + 1 :]
            if parent in above:
                break
            above.add(parent)
    return above
