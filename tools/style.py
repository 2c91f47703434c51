"""Exported cells have at most 20 lines, of at most 110 characters: list those that don't.

    python tools/style.py

A cell may be longer if its first line after `#| export` says why: `# long: a training loop that is read on one screen`.
"""
import re, sys
import nbformat
from nbdev.config import get_config
from nbdev.doclinks import nbglob

MOST_LINES,WIDEST = 20,110
LONG = re.compile(r'# long: \S') # and the reason
SIGNATURE = re.compile(r'^(@|def |class |    def |\s+\w+:.*#|\s*\*+\w+|\):?|\)->|    ")') # and docstrings: they aren't counted

def faults(path):
    "What is too long in the exported cells of a notebook"
    for cell in nbformat.read(path, 4).cells:
        lines = cell.source.splitlines()
        if cell.cell_type != 'code' or not lines or not lines[0].startswith('#| export'): continue
        said_why = len(lines) > 1 and LONG.match(lines[1])
        counted = [l for l in lines[1:] if l.strip() and not SIGNATURE.match(l)]
        name = next((l for l in lines[1:] if l.strip()), '')[:60]
        if len(counted) > MOST_LINES and not said_why: yield f'{path.name}: {len(counted)} lines in the cell that begins {name!r}'
        yield from (f'{path.name}: {len(l)} characters: {l.strip()[:60]}…' for l in lines if len(l) > WIDEST)

if __name__ == '__main__':
    found = [f for p in sorted(nbglob(get_config().nbs_path, as_path=True)) for f in faults(p)]
    print('\n'.join(found) or 'every exported cell is short')
    sys.exit(bool(found))
