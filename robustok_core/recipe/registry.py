"""Finds plugins, isolates broken ones, and builds components from recipe tables."""

from __future__ import annotations

import importlib.metadata
import inspect
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import pluggy
from attrs import define, field, frozen

from robustok_core.errors import ProblemsError, RobustokError, did_you_mean
from robustok_core.recipe import hookspecs
from robustok_core.recipe.limits import nesting_problem
from robustok_core.recipe.near_keys import component_keys, with_near_keys
from robustok_core.recipe.registration import Entry, checked_entry, require_kind
from robustok_core.recipe.structurer import Path, Problem, Structurer
from robustok_core.values.distributions import OWN
from robustok_core.values.spec import Spec
from robustok_core.values.wording import failure_of, short, short_text

ENTRY_POINT_GROUP = "robustok"


@define
class PluginState:
    """A plugin and its state; `error` says why it is not in use."""

    name: str
    distribution: str
    error: str | None = None
    components: list[str] = field(factory=list)


@frozen
class HookFailure:
    """What `Registry.ask` returns for a plugin that failed; `reason` is its error."""

    reason: str


class Registry:
    """The components that are known, by kind and name. Two registries share nothing."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager("robustok")
        self._manager.add_hookspecs(hookspecs)
        self._offered: dict[tuple[str, str], list[Entry]] = {}
        self._failed_hooks: set[tuple[str, str]] = set()
        self.plugins: list[PluginState] = []

    def answers(self, hook: str) -> dict[str, Any]:
        """Calls a hook of each plugin that has it; returns its answers by the plugin's name.

        Raises:
            RobustokError: a plugin failed.
        """
        found = {}
        for name, plugin in self._manager.list_name_plugin():
            if hasattr(plugin, hook):
                try:
                    found[name] = getattr(plugin, hook)()
                except BaseException as error:
                    raise RobustokError(f"the plugin {name!r} failed in {hook} ({failure_of(error)})") from error
        return found

    def notify(self, hook: str, **arguments: Any) -> list[str]:
        """Calls a hook of each plugin: `registry.notify("robustok_run_started", folder=..., recipe=...)`.

        A plugin that raises an error does not end the run.

        Returns:
            A message for each plugin that failed in this hook for the first time.
        """
        messages = []
        for name, answer in self.ask(hook, **arguments).items():
            if isinstance(answer, HookFailure) and (name, hook) not in self._failed_hooks:
                self._failed_hooks.add((name, hook))
                messages.append(f"the plugin {name!r} failed in {hook} ({answer.reason}); the run goes on")
        return messages

    def ask(self, hook: str, **arguments: Any) -> dict[str, Any]:
        """Calls a hook of each plugin; returns the answers by the plugins' names, a `HookFailure` where one failed."""
        plugins = [(name, plugin) for name, plugin in self._manager.list_name_plugin() if hasattr(plugin, hook)]
        answers: dict[str, Any] = {}
        for name, plugin in reversed(plugins):  # the order of pluggy: the last one registered is called first
            others = [other for _, other in plugins if other is not plugin]
            try:
                (answers[name],) = self._manager.subset_hook_caller(hook, others)(**arguments) or (None,)
            except BaseException as error:
                answers[name] = HookFailure(failure_of(error))
        return answers

    def add_plugin(self, plugin: object, name: str, distribution: str = "?") -> PluginState:
        """Registers a plugin module or object; a broken one is recorded with its error and not used."""
        state = PluginState(name, distribution)
        self.plugins.append(state)
        state.error = self._try_plugin(plugin, state)
        return state

    def _try_plugin(self, plugin: object, state: PluginState) -> str | None:
        if self._manager.has_plugin(state.name):
            return f"another plugin is already called {state.name!r}; rename one of the entry points"
        entries: list[Entry] = []

        def register(kind: str, name: str, component_class: type) -> None:
            entry = checked_entry(kind, name, component_class, state.name)
            if any((each.kind, each.name) == (kind, name) for each in entries):
                raise RobustokError(f"it registers the name {name!r} twice for a {kind}; give one another name")
            entries.append(entry)

        try:
            version = getattr(plugin, "ROBUSTOK_HOOKS", hookspecs.HOOK_VERSION)
            if version != hookspecs.HOOK_VERSION:
                return f"it was built for hook version {version}, this robustok has version {hookspecs.HOOK_VERSION}"
            self._manager.register(plugin, name=state.name)
            self._check_hooks(plugin, state.name)
            caller = self._manager.subset_hook_caller(
                "robustok_register", [p for p in self._manager.get_plugins() if p is not plugin]
            )
            if answers := caller(register=register):  # of a generator or a coroutine, nothing has run
                raise RobustokError(f"robustok_register must return nothing, found {short(answers[0])}")
        except BaseException as error:  # a plugin may raise anything; the others must still load
            if self._manager.has_plugin(state.name):
                self._manager.unregister(name=state.name)
            return failure_of(error)
        for entry in entries:
            self._offered.setdefault((entry.kind, entry.name), []).append(entry)
            state.components.append(f"{entry.kind} {entry.name}")
        return None

    def _check_hooks(self, plugin: object, name: str) -> None:
        """Raises an exception if a plugin has a hook that does not exist, one that would never be called, or none."""
        self._manager.check_pending()
        called = {caller.name for caller in self._manager.get_hookcallers(plugin) or ()}
        known = [name for name in vars(hookspecs) if name.startswith("robustok_")]
        if forgotten := [name for name in known if hasattr(plugin, name) and name not in called]:
            raise RobustokError(f"{forgotten[0]} is not decorated with @hookimpl, so it would never be called")
        if not called:
            found = ", not a function" if inspect.isroutine(plugin) else ""
            what = "it has no hook: name the module that has `robustok_register`"
            raise RobustokError(f'{what} ({name} = "package.module"){found}')

    def _in_use(self, key: tuple[str, str]) -> list[Entry]:
        """The component of a kind and name: robustok's own, whoever else has one. Of several, none can be used."""
        offered = self._offered.get(key, [])
        own = {state.name for state in self.plugins if state.distribution == OWN and state.error is None}
        return [entry for entry in offered if entry.plugin in own] or offered

    def left_out(self, plugin: str) -> list[str]:
        """Why components of a plugin that loaded are not in use: others have their names."""
        reasons = []
        for (kind, name), offered in self._offered.items():
            used = self._in_use((kind, name))
            owners = [entry.plugin for entry in offered]
            if plugin in owners and plugin not in [entry.plugin for entry in used]:
                reasons.append(f"its {kind} {name!r}, since robustok's own has this name; give it another one")
            elif plugin in owners and len(used) > 1:
                others = " and ".join(repr(owner) for owner in owners if owner != plugin)
                reasons.append(f"its {kind} {name!r}, since {others} has one, too; uninstall or rename one")
        return reasons

    def record_failure(self, name: str, distribution: str, error: str) -> None:
        """Records a plugin that could not be imported."""
        self.plugins.append(PluginState(name, distribution, error))

    def entries(self, kind: str | None = None) -> list[Entry]:
        """All components, or those of one kind, by name."""
        chosen = (self._in_use(key)[0] for key in self._offered if kind in (None, key[0]))
        return sorted(chosen, key=lambda entry: (entry.kind, entry.name))

    def distribution(self, spec: Spec) -> str:
        """The distribution that provides a component; "?" if that is not known."""
        used = [entry.plugin for entry in self._in_use((spec.kind, spec.name))[:1]]
        return next((state.distribution for state in self.plugins if state.name in used), "?")

    def names(self, kind: str) -> list[str]:
        """The names of one kind."""
        return [entry.name for entry in self.entries(kind)]

    def classes(self, kind: str) -> dict[str, Any]:
        """The classes of one kind by name."""
        return {entry.name: entry.factory for entry in self.entries(kind)}

    def find(self, kind: str, name: str, path: Path = ()) -> type | Problem:
        """The class of a component, or the problem with it."""
        used = self._in_use((kind, name))
        if len(used) > 1:
            owners = " and ".join(repr(entry.plugin) for entry in used)
            return Problem(path, f"{kind} {name!r} is provided by two plugins, {owners}", "uninstall or rename one")
        if used:
            return used[0].factory
        broken = [f"{state.name}: {state.error}" for state in self.plugins if state.error]
        hint = self._near_name(kind, name)
        if broken:
            hint += f"; plugins that failed to load: {'; '.join(broken)}"
        return Problem(path, f"no {kind} is called {short_text(name)}", hint)

    def _near_name(self, kind: str, name: str) -> str:
        """The hint for a name that no component of a kind has: what is called so by others, or spelt nearly so."""
        same = next(
            (each.name for each in self.entries(kind) if name.lower() in vars(each.factory).get("also_called", ())),
            None,
        )
        if same is not None:
            return f"did you mean {same!r}?"
        if kinds := [other for other, known in self._offered if known == name]:
            return f"{name!r} is a {kinds[0]}; {did_you_mean(name, self.names(kind))}"
        return did_you_mean(name, self.names(kind))

    def spec(self, kind: str, table: Mapping[str, Any], *, where: str | None = None) -> Spec:
        """Checks a recipe table and returns the component it describes, unbuilt.

        Args:
            where: what the messages call the table; default: the kind.

        Raises:
            ProblemsError: all mistakes in the table.
        """
        require_kind(kind)
        where = where or kind
        if (what := nesting_problem(table)) is not None:
            raise RobustokError(what, where=where)
        structurer = Structurer(self.find)
        spec = structurer.spec(kind, table, ())
        if structurer.problems:
            keys = partial(component_keys, kind, table, (), self.find)
            raise ProblemsError(
                [
                    RobustokError(problem.what, where=".".join([where, *map(str, problem.path)]), hint=problem.hint)
                    for problem in with_near_keys(structurer.problems, table, keys)
                ]
            )
        assert spec is not None
        return spec

    def build(self, kind: str, table: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Builds a component from its recipe table: `registry.build("quantizer", {"use": "vq"})`."""
        return self.spec(kind, table).build(*args, **kwargs)


def given_registry(value: Any) -> Registry:
    """The registry that was given, or one with all installed plugins for None.

    Raises:
        RobustokError: if it is something else.
    """
    if value is not None and not isinstance(value, Registry):
        hint = "robustok.load_registry() makes one; left out, all installed plugins are used"
        raise RobustokError(f"expected a Registry, found {short(value)}", where="registry", hint=hint)
    return value or load_registry()


def load_registry(entry_points: Iterable[Any] | None = None) -> Registry:
    """A registry of all installed plugins (entry point group "robustok"), each loaded on its own."""
    registry = Registry()
    if entry_points is None:
        entry_points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    for point in entry_points:
        distribution = (point.dist.name if point.dist else None) or "?"  # damaged metadata have no name
        try:
            plugin = point.load()
        except BaseException as error:  # one plugin that fails to import must not hide the others
            registry.record_failure(point.name, distribution, failure_of(error))
            continue
        registry.add_plugin(plugin, point.name, distribution)
    return registry
