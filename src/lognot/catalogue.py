"""Numbers for the items of the config in use: what the processes call them by. Pure; supervisor only.

An item that a reload leaves as it was keeps its number, and with it its counts, its waiting actions and its
journal in the ledger. A changed one is a new one. The same holds over a restart for items that resume.
"""

from __future__ import annotations

from collections.abc import Mapping

from lognot.settings import Config, Item, item_digest


class Catalogue:
    """The items in use.

    Args:
        earlier: the numbers of items of an earlier service, by their digests (settings.item_digest).
    """

    def __init__(self, earlier: Mapping[bytes, int] | None = None) -> None:
        self._items: dict[int, Item] = {}
        self._numbers: dict[str, int] = {}
        self._earlier = dict(earlier or {})
        self._last = max(self._earlier.values(), default=0)

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
                number = self._earlier.get(item_digest(item), 0) if self._earlier and item.resume else 0
                if not number:
                    self._last += 1
                    number = self._last
            items[number] = item
            numbers[item.name] = number
        self._items, self._numbers = items, numbers
        self._earlier.clear()  # what comes with a later reload begins anew

    def resuming(self) -> dict[bytes, int]:
        """Give the numbers of the items that resume, by their digests."""
        return {item_digest(item): number for number, item in self._items.items() if item.resume}

    def number(self, item: Item) -> int:
        """Give the number of an item in use.

        Raises:
            KeyError: there is no such item.
        """
        return self._numbers[item.name]

    def item(self, number: int) -> Item | None:
        """Give an item by its number, None for one that is no longer in use."""
        return self._items.get(number)
