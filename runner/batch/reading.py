"""What a config's prompts are, and how they stand. Only reads."""

from __future__ import annotations

from operator import itemgetter

from runner import journal, ledger
from runner.client import fetch_list
from runner.config import Config
from runner.errors import UsageError
from runner.prompts import Prompts, read_prompts
from runner.protocols import Protocol
from runner.records import URL, Prompt
from runner.remote import Folder, folder_of
from runner.resume import Standing, standing
from runner.storage import STATE

_SHOWN = 20


def read_all(config: Config) -> Prompts:
    """Return every prompt of the run, done or not. Raises UsageError."""
    settings = config.settings
    protocol = config.protocol
    try:
        prompts = read_prompts(
            config.prompts,
            base=config.base,
            keys=settings.output.keys,
            what=protocol.what,
            several=protocol.several,
            fetch=lambda url: fetch_list(url, settings.timeouts),
        )
        _check_sendable(prompts, protocol)
    except UsageError as error:
        raise UsageError(*map(config.redactor.text, error.problems)) from error
    return prompts


def _check_sendable(prompts: Prompts, protocol: Protocol) -> None:
    """Raise UsageError naming the prompts that don't have all that the protocol sends."""
    if not protocol.demanding:
        return
    plain = {is_path: protocol.lacks(Prompt(0, "", "/" if is_path else URL[0])) for is_path in (True, False)}
    lacking = (
        (index, protocol.lacks(prompts[index]) if packed[:1] == b"{" else plain[packed[:1] == b"/"])
        for index, (_, packed) in enumerate(prompts.encoded())
    )  # a record of each of a million would take seconds
    wrong = [(index, what) for index, what in lacking if what]
    if wrong:
        raise UsageError(
            *(f"{prompts.place(index)}: {prompts[index].key} has {what}" for index, what in wrong[:_SHOWN]),
            *([f"… and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []),
            f"The protocol {protocol.name} sends {', '.join(f'{{{name}}}' for name in protocol.demanding)}. "
            "Nothing was sent.",
        )


def history_of(config: Config, ledgers: ledger.Ledgers | None = None) -> ledger.History:
    """Return what the output folder's ledgers say, that of the whole list and those of shards."""
    ledgers = ledgers or ledger.ledgers_of(config.output_folder)
    history = ledger.replay(ledgers)
    if history.unreadable:
        alone = ledgers.paths[0] if len(ledgers.paths) == 1 else config.output_folder / STATE
        journal.log.warning("%s: %d unreadable lines ignored", alone, history.unreadable)
    return history


def members_of(config: Config, prompts: Prompts) -> bytearray | None:
    """Return 1 for each prompt of the config's shard, and 0 for the others; None if it is to do all of them."""
    return config.shard.members(map(itemgetter(0), prompts.encoded())) if config.shard else None


def standing_of(
    config: Config,
    prompts: Prompts,
    history: ledger.History,
    *,
    members: bytearray | None = None,
    overwrite: bool = False,
    folder: Folder | None = None,
) -> Standing:
    """Say which prompts are done and which are to do, of all, or of those with a 1 in ``members``. Only reads.

    ``folder`` may have been listed already.
    """
    folder = folder or folder_of(config.output_folder, config.far)
    settings = config.settings
    with folder.unchanged() as unchanged:
        return standing(
            prompts,
            history,
            unchanged=unchanged,
            stamp=folder.stamp,
            digest=folder.sha256,
            seed=settings.seed,
            protocol=config.protocol.name,
            verify=settings.output.verify,
            overwrite=overwrite,
            members=members,
        )
