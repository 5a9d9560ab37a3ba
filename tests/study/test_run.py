import dataclasses

from vpcore.pruning.methods import METHODS
from vpcore.study.profile import load_profile
from vpcore.study.run import DEFAULTS, FACTS, FIELDS, Run, canonical, chain_id, run_id, run_name, source_run, ticket_run

# The ids of three runs with the defaults. A change here makes every record that exists an orphan: a field that is added
# must not enter the identity of the runs that were there before.
PINNED = {"source": "70158785172e", "vp": "fd021fc49f12", "lp": "99b40fad85f9", "ft": "9f1524af3c26"}


def test_identities_are_pinned() -> None:
    assert {method: run_id(Run(method=method, task="digits")) for method in FIELDS} == PINNED


def test_identity_holds_what_a_run_depends_on_and_nothing_else() -> None:
    base = Run(method="lp", task="digits")
    assert run_id(dataclasses.replace(base, image_px=16)) == run_id(base)  # a probe has no canvas
    prompt = dataclasses.replace(base, method="vp")
    assert run_id(dataclasses.replace(prompt, image_px=16)) != run_id(prompt)
    weighed = dataclasses.replace(prompt, mapping="blm")  # nothing is ranked, so there are no ties
    assert run_id(dataclasses.replace(weighed, ties="index")) == run_id(weighed)
    drawn = dataclasses.replace(prompt, mapping="random")  # and never found anew
    assert run_id(dataclasses.replace(drawn, last_mapping="stale")) == run_id(drawn)
    for name, value in (("ties", "index"), ("last_mapping", "stale")):
        assert run_id(dataclasses.replace(prompt, **{name: value})) != run_id(prompt)
    rewired = dataclasses.replace(prompt, round=1, sparsifier="rigl")  # it ranks no weights at first
    assert run_id(dataclasses.replace(rewired, scope="layer")) == run_id(rewired)
    grown = dataclasses.replace(rewired, sparsifier="gmp")
    assert run_id(dataclasses.replace(grown, scope="layer")) != run_id(grown)
    source = Run(method="source")
    for name in ("task", "budget", "seed", "lr"):
        changed = dataclasses.replace(source, **{name: "digits" if name == "task" else 3})
        assert run_id(changed) == run_id(source)


def test_where_weights_are_ranked_it_matters_among_which() -> None:
    """Not for the dense network, which all chains share, and not where a pattern, a draw or each layer decides."""
    elsewhere = {"2:4", "rigl", "random-erk", "random-uniform", "wanda", "obs"}
    for name in METHODS:
        for number in (0, 1):
            run = Run(method="source", round=number, sparsifier=name)
            same = run_id(dataclasses.replace(run, scope="layer")) == run_id(run)
            assert same == (number == 0 or name in elsewhere), (name, number)


def test_every_field_matters_to_some_run() -> None:
    """A field that enters no identity would let two different results share a name."""
    sparse = Run(method="lp", task="digits", round=1, weight_bits=4, view="canvas")
    for field in dataclasses.fields(Run):
        value = getattr(sparse, field.name)
        other = value + 1 if isinstance(value, int | float) else 5 if value is None else f"{value}x"
        other = {"mapping": "blm", "quant_training": "lsq"}.get(field.name, other)
        if field.name != "method":
            assert any(
                run_id(dataclasses.replace(sparse, method=method, **{field.name: other}))
                != run_id(dataclasses.replace(sparse, method=method))
                for method in FIELDS
            ), field.name


def test_a_later_field_changes_an_identity_only_when_it_is_set() -> None:
    """At the value that all earlier runs had, it leaves no trace in the id: that is how old results stay found."""
    base = Run(method="vp", task="digits", round=2)
    assert not FACTS["mapping"].hashed
    changed = dataclasses.replace(base, mapping="blm")
    assert run_id(changed) != run_id(base)
    assert run_id(dataclasses.replace(changed, mapping="ilm")) == run_id(base)


def test_a_network_is_known_by_what_it_depends_on() -> None:
    sparse = Run(method="vp", task="digits", round=2, sparsifier="gmp", weight_bits=4)
    assert chain_id(dataclasses.replace(sparse, round=0)) == chain_id(Run())  # the dense network is that of all ways
    assert chain_id(sparse) != chain_id(dataclasses.replace(sparse, sparsifier="imp"))
    assert ticket_run(sparse) == source_run(dataclasses.replace(sparse, weight_bits=32))
    assert source_run(sparse) != ticket_run(sparse)
    assert canonical(dataclasses.replace(sparse, round=0)).sparsifier == "imp"
    published = dataclasses.replace(sparse, weights="package", sparsifier="magnitude-bn")
    assert run_id(dataclasses.replace(published, source_lr=0.7)) == run_id(published)  # nobody trains it
    tuned = dataclasses.replace(published, sparsifier="oneshot")
    assert run_id(dataclasses.replace(tuned, source_lr=0.7)) != run_id(tuned)


def test_names_are_different_for_different_runs() -> None:
    runs = load_profile("mini").runs
    assert len({run_name(run) for run in runs}) == len({run_id(run) for run in runs}) == len(runs)


def test_every_field_says_what_it_is_and_has_a_default_that_it_may_have() -> None:
    for name, fact in FACTS.items():
        assert fact.about
        assert not fact.choices or DEFAULTS[name] in fact.choices, name
        assert fact.least is None or DEFAULTS[name] is None or DEFAULTS[name] >= fact.least, name


def test_a_network_trained_with_quantized_steps_is_a_chain_of_its_own() -> None:
    dense = Run(method="vp", task="digits")
    after = dataclasses.replace(dense, weight_bits=4)
    trained = dataclasses.replace(after, quant_training="lsq")
    longer = dataclasses.replace(dense, quant_training="lsq")  # the float network, trained on equally long
    assert chain_id(after) == chain_id(dense)
    assert len({chain_id(run) for run in (dense, trained, longer)}) == 3
    assert ticket_run(trained).weight_bits == 4
    assert ticket_run(after).weight_bits == 32
    assert run_id(dataclasses.replace(trained, quant_range="minmax")) == run_id(trained)  # its steps are learned
