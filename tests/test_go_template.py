"""Templates, as Helmfile itself fills them: the same text, or an error where it has one."""

# ruff: noqa: E501 (a table of examples)

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from kfdeploy import go_template
from tests.conftest import need_programs

VALUES: dict[str, Any] = {
    "word": "plain",
    "odd": "<a & \"b\"> 'c' \\ \t é 数 \u2028 \x7f",
    "empty": "",
    "number": 7,
    "zero": 0,
    "float": 1.5,
    "whole": 2.0,
    "big": 12345678,
    "yes": True,
    "no": False,
    "nothing": None,
    "list": ["b", "a", "c"],
    "none": [],
    "map": {"z": 1, "a": {"b": "deep"}, "m-n": "dash"},
    "hollow": {},
    "unsorted": {"z": "1", "a": "2", "B": "3"},
    "images": {
        "ghcr.io/a/b:1": {"ref": "r.test/a/b:1@sha256:0", "tag": "1", "parent": "r.test/a"},
        "mysql:8.4": {"ref": "r.test/mysql:8.4", "tag": "8.4", "parent": "r.test"},
    },
}

TEMPLATES: dict[str, str] = {
    "text": "plain text\n  with layout\n",
    "nothing": "",
    "field": "{{ .Values.word }} {{.Values.map.a.b}}",
    "index": '{{ (index .Values.images "ghcr.io/a/b:1").ref }}',
    "index of a list": "{{ index .Values.list 1 }}",
    "index twice": '{{ index .Values.map "a" "b" }}',
    "quotes in a YAML string": '"{{ (index .Values.images "mysql:8.4").ref }}"',
    "environment": "{{ .Environment.Name }} {{ $.Environment.Name }}",
    "numbers": "{{ .Values.number }} {{ .Values.float }} {{ .Values.whole }} {{ .Values.big }}",
    "booleans": "{{ .Values.yes }} {{ .Values.no }}",
    "constants": '{{ 5 }} {{ -3 }} {{ 1.5 }} {{ true }} {{ "a\\tb" }} {{ `raw "x"` }}',
    "trimmed": "a  {{- .Values.word -}}  \n b {{- /* gone */ -}} c",
    "trimmed on one side": "a {{- .Values.word }} b {{ .Values.word -}} c",
    "minus": "{{ -1 }} {{- 2 }} {{ 3 -}} x",
    "comment": "a{{/* gone */}}b{{- /* gone\ntoo */ -}} c",
    "if": "{{ if .Values.yes }}1{{ end }}{{ if .Values.no }}2{{ else }}3{{ end }}",
    "what is true": "".join(
        f"{{{{ if .Values.{name} }}}}{name}{{{{ end }}}}"
        for name in ("word", "empty", "number", "zero", "list", "none", "map", "hollow", "float")
    ),
    "else if": "{{ if .Values.no }}1{{ else if .Values.yes }}2{{ else }}3{{ end }}",
    "if in if": "{{ if .Values.no }}{{ if .Values.yes }}1{{ else }}2{{ end }}{{ else }}3{{ end }}",
    "with": "{{ with .Values.map }}{{ .a.b }}{{ end }}{{ with .Values.empty }}1{{ else }}2{{ end }}",
    "dollar in with": "{{ with .Values.map }}{{ $.Values.word }}{{ end }}",
    "range": "{{ range .Values.list }}<{{ . }}>{{ end }}",
    "range over a map": "{{ range .Values.images }}{{ .ref }} {{ end }}",
    "range over an unsorted map": "{{ range .Values.unsorted }}{{ . }}{{ end }}",
    "range over nothing": "{{ range .Values.none }}x{{ else }}none{{ end }}",
    "range in range": "{{ range .Values.list }}{{ range $.Values.list }}{{ . }}{{ end }} {{ end }}",
    "pull secrets": (
        "{{- if .Values.list }}\n- op: add\n{{- range .Values.list }}\n"
        "  value: {name: {{ toJson . }}}\n{{- end }}\n{{- end }}\n"
    ),
    "variable": "{{ $x := .Values.word }}{{ $x }}",
    "two variables": "{{ range $i, $x := .Values.list }}{{ $i }}{{ $x }}{{ . }}{{ end }}",
    "two variables of a map": "{{ range $k, $v := .Values.images }}{{ $k }} {{ $v.ref }} {{ .tag }} {{ end }}",
    "one variable of a range": "{{ range $x := .Values.images }}{{ range $.Values.list }}{{ $x.tag }}{{ . }}{{ end }}{{ end }}",
    "a variable of with": "{{ with $m := .Values.map }}{{ $m.a.b }} {{ .z }}{{ end }}",
    "a variable of if": "{{ if $w := .Values.word }}{{ $w }}{{ else }}{{ $w }}{{ end }}",
    "a variable ends with its block": "{{ $x := 1 }}{{ if true }}{{ $x := 2 }}{{ $x }}{{ end }}{{ $x }}",
    "a variable that is not there": "{{ if true }}{{ $x := 2 }}{{ end }}{{ $x }}",
    "a variable that is set": "{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ end }}{{ $x }}",
    "range over a number": "{{ range 3 }}{{ . }}{{ end }}",
    "range over a list of words": '{{ range $d := list "01" "2f" }}{{ $d }} {{ end }}',
    "dollar in range": "{{ range .Values.images }}{{ $.Values.word }}{{ end }}",
    "set": (
        "{{ $seen := dict }}{{ range .Values.list }}{{ if not (hasKey $seen .) }}{{ . }}"
        '{{ $_ := set $seen . true }}{{ $_ := set $seen "a" 1 }}{{ end }}{{ end }} {{ toJson $seen }}'
    ),
    "contains": '{{ contains "la" .Values.word }} {{ contains "x" .Values.word }}',
    "substr": '{{ substr 0 2 .Values.word }} {{ substr 2 99 .Values.word }} {{ substr 1 -1 .Values.word }}',
    "substr of the odd": "{{ substr 0 3 .Values.odd }}",
    "substr past the end": "{{ substr 9 12 .Values.word }}",
    "trimPrefix": '{{ trimPrefix "pl" .Values.word }} {{ trimPrefix "x" .Values.word }}',
    "json": "{{ .Values.odd | toJson }} {{ toJson .Values.map }} {{ toJson .Values.list }}",
    "json of simple values": "{{ toJson .Values.nothing }} {{ toJson true }} {{ toJson 1 }}",
    "json of floats": "{{ toJson .Values.float }} {{ toJson .Values.whole }}",
    "quote": "{{ quote .Values.word }} {{ .Values.number | quote }} {{ .Values.yes | quote }}",
    "quote of the odd": "{{ quote .Values.odd }}",
    "quote of several": '{{ quote "a" "b" }}',
    "printf": '{{ printf "%s:%s" .Values.word "x" }} {{ printf "%d%%" .Values.number }}',
    "printf of anything": '{{ printf "%v %v %v" .Values.yes .Values.number .Values.float }}',
    "printf of quotes": '{{ printf "%q" .Values.word }}',
    "printf of the wrong kind": '{{ printf "%s" .Values.number }}',
    "printf with too few": '{{ printf "%s %s" .Values.word }}',
    "printf with too many": '{{ printf "%s" .Values.word "x" }}',
    "printf with a context": (
        "{{ printf `\"hub\": \"%s\"` (index .Values.images \"mysql:8.4\").parent }}"
    ),
    "piped": '{{ .Values.word | upper | printf "%s-%s" "a" }}',
    "default": '{{ default "d" .Values.empty }} {{ .Values.zero | default 5 }} {{ .Values.word | default "d" }}',
    "default of a list": '{{ .Values.none | default "d" }}',
    "ternary": '{{ ternary "a" "b" .Values.yes }} {{ .Values.no | ternary "a" "b" }}',
    "equal": '{{ eq .Values.word "plain" }} {{ ne .Values.word "x" }} {{ eq .Values.word "x" "plain" }}',
    "equal numbers": "{{ eq .Values.number 7 }} {{ eq .Values.zero 1 }}",
    "equal kinds": '{{ eq .Values.number "7" }}',
    "a boolean is no number": "{{ eq .Values.yes 1 }}",
    "and, or, not": '{{ and .Values.yes .Values.word }} {{ or .Values.empty .Values.word }} {{ not .Values.no }}',
    "or stops": "{{ or .Values.word (fail `never`) }}",
    "and stops": "{{ and .Values.empty (fail `never`) }}x",
    "has a key": '{{ hasKey .Values.map "a" }} {{ hasKey .Values.map "q" }}',
    "sum": "{{ .Values.word | sha256sum }}",
    "print": '{{ print "a" "b" .Values.word | sha256sum }}',
    "print of numbers": '{{ print 1 2 "a" 3 }}',
    "upper and trim": '{{ upper "aé" }} {{ lower "AÉ" }} {{ trim " a \\n" }}',
    "lists and dicts": '{{ index (list "a" "b") 1 }} {{ index (dict "a" 1 "b" 2) "b" }}',
    "required": '{{ required "needed" .Values.word }}',
    "required and missing": '{{ required "needed" .Values.empty }}',
    "fail": '{{ fail "with this" }}',
    "a value that is missing": "{{ .Values.missing }}",
    "a value below one that is missing": "{{ .Values.missing.deep }}",
    "a value below a word": "{{ .Values.word.deep }}",
    "a key that is missing": '{{ (index .Values.images "gone").ref }}',
    "an index that is missing": "{{ index .Values.list 5 }}",
    "null": "{{ .Values.nothing }}",
    "a function nobody knows": "{{ frobnicate 1 }}",
    "a function of sprig": '{{ "a,b" | splitList "," | join "-" }}',
    "not closed": "{{ if .Values.yes }}x",
    "closed twice": "x{{ end }}",
    "not closed braces": "{{ .Values.word",
    "parenthesis": "{{ (.Values.word }}",
    "too many arguments": "{{ toJson 1 2 }}",
    "too few arguments": "{{ toJson }}",
    "a value that is called": "{{ .Values.word 1 }}",
    "braces in a string": '{{ "}}" }}{{ `{{ x }}` }}',
    "escaped quotes": '{{ "say \\"hi\\"" }} {{ "\\u00e9\\n" | toJson }}',
    "windows": "a\r\n{{ .Values.word }}\r\n{{- .Values.word }}",
    "get": '{{ .Values | get "word" }} {{ .Values | get "gone" "d" }}',
    "get deeper": '{{ get "map.a.b" .Values }}{{ get "map.gone" "d" .Values }}{{ get "nothing" "d" .Values }}',
    "get below null": '{{ get "nothing.a" "d" .Values }}',
    "get of what is missing": '{{ get "gone" .Values }}',
    "order": "{{ gt 2 1 }}{{ gt 1 1 }}{{ ge 1 1 }}{{ ge 0 1 }}",
    "order of words": '{{ gt "b" "a" }}',
    "int": '{{ int "36" }}{{ "0" | int }}{{ int 7 }}',
    "int of the odd": '{{ int "08" }} {{ int "" }} {{ int "3x" }}',
    "split": '{{ index (splitList "." "v1.36.0") 1 }}{{ trimSuffix "/" "a//" }}',
    "cut": '{{ regexReplaceAll "[^0-9].*" "36-rc.1" "" }}{{ regexReplaceAll "a(b)" "xab" "$1" }}',
    "map printed": "{{ .Values.map }}",
    "list printed": "{{ .Values.list }}",
    "len": "{{ len .Values.list }}",
    "not trimmed without space": "a {{-1}} b",
}  # fmt: skip


@pytest.fixture(scope="module")
def helmfiles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """What Helmfile makes of each template; None where it refuses."""
    need_programs("helmfile", "helm")
    folder = tmp_path_factory.mktemp("helmfile")
    names = list(TEMPLATES)
    (folder / "values.json").write_text(json.dumps(VALUES))
    for number, name in enumerate(names):
        (folder / f"{number}.tmpl").write_bytes(TEMPLATES[name].encode())
    # One that fails hides the others, so it is taken out, and the rest asked again.
    answers: dict[str, str | None] = dict.fromkeys(names)
    left = list(names)
    while True:
        done = ask(folder, names, left)
        if not isinstance(done, str):
            return answers | done
        left.remove(done)


def ask(folder: Path, names: list[str], asked: list[str]) -> dict[str, str | None] | str:
    """What all templates give; else the one that failed first."""
    lines = [
        f"c{names.index(name)}: {{{{ tpl (readFile `{names.index(name)}.tmpl`) . | b64enc | quote }}}}"
        for name in asked
    ]
    (folder / "all.yaml.gotmpl").write_text("\n".join(lines) + "\n")
    (folder / "helmfile.yaml").write_text(
        "environments:\n  default:\n    values: [values.json]\n---\n"
        "releases:\n- name: x\n  chart: ./none\n  values: [all.yaml.gotmpl]\n"
    )
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "HELMFILE_UPGRADE_NOTICE_DISABLED": "true",
    }
    helmfile = shutil.which("helmfile")
    assert helmfile
    done = subprocess.run(
        [helmfile, "write-values", "--output-file-template", folder / "out.yaml"],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode == 0:
        data = YAML(typ="safe").load(folder / "out.yaml")
        return {name: base64.b64decode(data[f"c{names.index(name)}"]).decode() for name in asked}
    line = re.search(r"template: stringTemplate:(\d+):", done.stderr)
    assert line, done.stderr
    return asked[int(line[1]) - 1]


def ours(name: str) -> str | None:
    values = {"Values": VALUES, "Environment": {"Name": "default"}}
    try:
        return go_template.render(TEMPLATES[name], values)
    except go_template.TemplateError:
        return None


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_filled_as_helmfile_fills_it(
    name: str, helmfiles: dict[str, str | None]
) -> None:
    try:
        text = ours(name)
    except go_template.UnsupportedTemplate:
        return  # Helmfile itself is asked then
    assert text == helmfiles[name]


def test_what_patches_use_is_filled_without_helmfile() -> None:
    left = set()
    for name in TEMPLATES:
        try:
            ours(name)
        except go_template.UnsupportedTemplate:
            left.add(name)
    assert left == LEFT_TO_HELMFILE


LEFT_TO_HELMFILE = {
    *("else if", "a variable that is not there", "a variable that is set", "range over a number"),
    *(
        "len",
        "get below null",
        "order of words",
        "int of the odd",
        "cut",
        "map printed",
        "list printed",
    ),
    *("substr of the odd", "substr past the end"),
    *(
        "constants",
        "print",
        "print of numbers",
        "numbers",
        "json of floats",
        "quote of the odd",
        "equal kinds",
        "a boolean is no number",
    ),
    *("printf of the wrong kind", "printf with too few", "printf with too many"),
    *("printf of anything", "or stops", "and stops", "a function nobody knows"),
    *("a function of sprig", "not closed", "closed twice", "not closed braces", "parenthesis"),
    *("a value that is called", "braces in a string"),
}
