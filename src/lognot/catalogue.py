"""Numbers for the items of the config in use: what the processes call them by. Pure; supervisor only.

An item that a reload leaves as it was keeps its number, and with it its counts, its waiting actions and its
journal in the ledger. A changed one is a new one.
"""

from __future__ import annotations

from lognot.settings import Config, Item


class Catalogue:
    """The items in use."""

    def __init__(self) -> None:
        self._items: dict[int, Item] = {}
        self._numbers: dict[str, int] = {}
        self._last = 0

    def __len__(self) -> int:
        """How many items are in use."""
        return len(self._items)

    def use(self, config: Config) -> None:
        """Number the items of a config, and forget those of the last one."""
        items: dict[int, Item] = {}
        numbers: dict[str, int] = {}
        for item in config.items:
            number = self._numbers.get(item.name, 0)
            if not number or self._items[number] != item:
                self._last += 1
                number = self._last
            items[number] = item
            numbers[item.name] = number
        self._items, self._numbers = items, numbers

    def number(self, item: Item) -> int:
        """Give the number of an item in use.

        Raises:
            KeyError: there is no such item.
        """
        return self._numbers[item.name]

    def item(self, number: int) -> Item | None:
        """Give an item by its number, None for one that is no longer in use."""
        return self._items.get(number)
