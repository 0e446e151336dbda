"""The query layer: engine, ranking, metrics, evaluation and the `retrieve` command."""
