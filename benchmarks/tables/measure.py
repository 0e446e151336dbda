"""Making the runs of a plan: each trained once, evaluated once, and kept.

Run again, what is done is skipped; a run that was killed while it trained goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from benchmarks.machine import commit_name, machine_name
from benchmarks.tables.config_toml import config_toml
from benchmarks.tables.keys import Ground
from benchmarks.tables.plan import PlannedRun
from benchmarks.tables.run_store import RunStore
from benchmarks.tables.runner import Runner
from training.errors import DataError

Tell = Callable[[str], None]


def measure_runs(
    runs: Sequence[PlannedRun],
    store: RunStore,
    runner: Runner,
    device: str,
    tell: Tell,
    began: Ground,
    now: Callable[[], Ground],
) -> None:
    """Make every run that has not been made.

    Args:
        runs: in this order.
        store: where they are kept.
        runner: trains and evaluates.
        device: as the runner's, for the name of the machine.
        tell: told in a line what happens with each run.
        began: the hashes that the keys of the runs rest on.
        now: the same hashes as they are when it is called.

    Raises:
        DataError: data, weights or code changed since the command began: what is measured from
            then on would be kept under a wrong key.
    """
    machine = machine_name(device)

    def check() -> None:
        found = now()
        changed = [
            f.name for f in fields(began) if getattr(began, f.name) != getattr(found, f.name)
        ]
        if changed:
            names = ", ".join(changed).replace("_", " ")
            raise DataError(
                f"the {names} changed while this command ran; what was made before is kept, run "
                "the same command again (in a checkout that nobody edits)"
            )

    for number, run in enumerate(runs, 1):
        where = f"[{number}/{len(runs)}] {run.row.name}, seed {run.config.seed}"
        if store.measured(run) is not None:
            tell(f"{where}: done before")
            continue
        check()
        if run.row.floor:
            tell(f"{where}: measuring")
            record = runner.floor(run)
        else:
            trained = trained_run(run, store, runner, machine, where, tell)
            check()
            tell(f"{where}: evaluating")
            record = runner.evaluate(run, store.folder(run)) | {"training": trained}
        record |= {"commit": commit_name(), "machine": machine}
        record.pop("checkpoint", None)  # where the run lies is this machine's business
        store.keep_measured(run, record)


def trained_run(
    run: PlannedRun, store: RunStore, runner: Runner, machine: str, where: str, tell: Tell
) -> dict[str, Any]:
    """Train a run, or what is left of it, unless it is finished.

    Args:
        run: which.
        store: where it is kept, in `store.folder(run)`.
        runner: trains it.
        machine: name of this machine.
        where: how the lines begin that `tell` is told.

    Returns:
        What is kept of the report of its training.
    """
    done = store.trained(run)
    if done is not None:
        tell(f"{where}: trained before")
        return done
    resume = store.prepare(run, config_toml(run.config))
    tell(f"{where}: {'resuming' if resume else 'training'} in {store.folder(run)}")
    report = runner.train(run, store.folder(run) / "config.toml", store.folder(run), resume)
    kept = ("images", "best_epoch", "validation_map", "seconds", "setup_seconds")
    done = {name: report[name] for name in kept}
    done |= {"epochs": len(report["epochs"]), "machine": machine}
    store.keep_trained(run, done)
    return done
