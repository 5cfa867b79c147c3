"""Text of strangers in messages of ours."""


def printable(text: object, *, max_length: int = 300) -> str:
    """Text cut to a length, with what could move a cursor or begin a line of a log written out.

    Args:
        text: of a file, or of another library's error, which quotes files.
        max_length: characters of the text that are looked at.
    """
    cut = str(text)[:max_length]
    return "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode() for ch in cut)
