"""ListOps by plain recursion: the trees of the generator, from the same streams of integers; slow and obvious."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median

from lra.tasks.listops.grammar import Grammar

OPERATORS: dict[str, Callable[[list[int]], int]] = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda values: int(median(values)),
    "[SM": lambda values: sum(values) % 10,
}
Tree = int | tuple[str, list["Tree"]]

GAMMA = 0x9E3779B97F4A7C15
WORD = 2**64


def mix(z: int) -> int:
    """Mix the bits of a word: the output function of splitmix64."""
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ z >> 27) * 0x94D049BB133111EB % WORD
    return z ^ z >> 31


def stream(data_seed: int, candidate: int) -> Iterator[int]:
    """splitmix64, started at a place of its own for every candidate."""
    state = mix((mix((data_seed + GAMMA) % WORD) + candidate) % WORD)
    while True:
        state = (state + GAMMA) % WORD
        yield mix(state)


def draw(grammar: Grammar, candidate: int) -> Tree:
    """Draw one candidate to its end, however long it grows."""
    return draw_node(grammar, 1, stream(grammar.data_seed, candidate))


def draw_node(grammar: Grammar, depth: int, bits: Iterator[int]) -> Tree:
    """Draw a node at a depth, and everything beneath it."""
    high, low = divmod(next(bits), 2**32)
    if depth < grammar.max_depth and high < grammar.operator_probability * 2**32:
        num_arguments = 2 + (low // 4) * (grammar.max_args - 1) // 2**30
        return list(OPERATORS)[low % 4], [draw_node(grammar, depth + 1, bits) for _ in range(num_arguments)]
    return low * 10 // 2**32


def value(tree: Tree) -> int:
    """Evaluate a tree."""
    if isinstance(tree, int):
        return tree
    operator, arguments = tree
    return OPERATORS[operator]([value(argument) for argument in arguments])


def words(tree: Tree) -> list[str]:
    """The tokens without parentheses."""
    if isinstance(tree, int):
        return [str(tree)]
    operator, arguments = tree
    return [operator, *(word for argument in arguments for word in words(argument)), "]"]


def source(tree: Tree) -> str:
    """The released notation: a list is a binary tree that leans left, `( ( ( [MAX 2 ) 9 ) ] )`."""
    if isinstance(tree, int):
        return str(tree)
    operator, arguments = tree
    text = operator
    for argument in [*map(source, arguments), "]"]:
        text = f"( {text} {argument} )"
    return text


def parse(text: str) -> Tree:
    """Read bracketed text without parentheses."""
    open_lists: list[tuple[str, list[Tree]]] = [("", [])]
    for word in text.split():
        if word in OPERATORS:
            open_lists.append((word, []))
        else:
            node = open_lists.pop() if word == "]" else int(word)
            open_lists[-1][1].append(node)
    ((_, (tree,)),) = open_lists
    return tree
