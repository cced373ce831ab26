"""Fetching from real git repositories on disk."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from kfdeploy.errors import UserError
from kfdeploy.programs import git
from kfdeploy.programs.git import GitTree, fetch_commit


def run_git(repository: Path, *argv: str) -> str:
    env = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@example.org",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@example.org",
        "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
        "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
    }
    done = subprocess.run(
        ["git", "-C", str(repository), *argv], env=env, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits; the first has the tag v1, the second is the head of main."""
    path = tmp_path / "repo"
    path.mkdir()
    run_git(path, "init", "-q", "-b", "main")
    (path / "d").mkdir()
    (path / "d" / "crlf.yaml").write_bytes(b"a: b\r\n")
    (path / ".gitattributes").write_text("*.yaml text eol=lf\nd/hidden.txt export-ignore\n")
    (path / "d" / "hidden.txt").write_text("$Id$\n")
    (path / "d" / "odd \u00e9 name.yaml").write_text("x: 1\n")
    (path / "link.yaml").symlink_to("d/crlf.yaml")
    (path / "linked").symlink_to("d")
    (path / "out").symlink_to("../../etc")
    run_git(path, "-c", "core.autocrlf=false", "add", "-A")
    run_git(path, "commit", "-q", "-m", "one")
    run_git(path, "tag", "-a", "v1", "-m", "v1")
    (path / "new.yaml").write_text("n: 1\n")
    run_git(path, "add", "-A")
    run_git(path, "commit", "-q", "-m", "two")
    return path


def test_a_tag_a_branch_and_a_commit_are_fetched(repository: Path, tmp_path: Path) -> None:
    first = run_git(repository, "rev-parse", "v1^{commit}")
    second = run_git(repository, "rev-parse", "main")
    url = f"file://{repository}"
    assert fetch_commit(url, "v1", tmp_path / "c").commit == first
    assert fetch_commit(url, "main", tmp_path / "c").commit == second
    assert fetch_commit(url, "", tmp_path / "c").commit == second
    assert fetch_commit(url, first, tmp_path / "c2").commit == first
    assert fetch_commit(url, first[:10], tmp_path / "c3").commit == first


def test_a_commit_in_the_cache_is_not_asked_for_again(repository: Path, tmp_path: Path) -> None:
    commit = run_git(repository, "rev-parse", "main")
    url = f"file://{repository}"
    fetch_commit(url, commit, tmp_path / "c")
    repository.rename(tmp_path / "gone")
    assert fetch_commit(url, commit, tmp_path / "c").commit == commit


def test_files_are_the_commit_s_bytes(repository: Path, tmp_path: Path) -> None:
    files, links = GitTree(fetch_commit(str(repository), "v1", tmp_path / "c")).load_files()
    assert files["d/hidden.txt"] == b"$Id$\n"
    assert files["d/odd \u00e9 name.yaml"] == b"x: 1\n"
    stored = subprocess.run(
        ["git", "-C", str(repository), "cat-file", "blob", "v1:d/crlf.yaml"],
        check=True,
        capture_output=True,
    ).stdout
    assert files["d/crlf.yaml"] == stored
    assert links == {"link.yaml": "d/crlf.yaml", "linked": "d", "out": "../../etc"}
    assert "new.yaml" not in files


def test_links_are_followed_within_the_repository(repository: Path, tmp_path: Path) -> None:
    tree = GitTree(fetch_commit(str(repository), "v1", tmp_path / "c"))
    assert tree.get_kind("link.yaml") == "file"
    assert tree.get_kind("linked") == "folder"
    assert tree.read_file("linked/crlf.yaml") == tree.read_file("d/crlf.yaml")
    assert tree.get_kind("out") is None
    assert tree.get_kind("out/passwd") is None
    assert tree.get_kind("nothing") is None
    assert tree.get_kind("") == "folder"


def test_an_unknown_ref_is_named(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        fetch_commit(f"file://{repository}", "v9", tmp_path / "c")
    assert caught.value.message == (
        f"can't fetch file://{repository}: it has no branch, tag or commit 'v9'"
    )


def test_an_unknown_commit_is_named(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it has no branch, tag or commit 'abcdef0'"):
        fetch_commit(f"file://{repository}", "abcdef0", tmp_path / "c")


def test_no_repository_is_an_error_in_git_s_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"can't fetch file:///.*does not (exist|appear)"):
        fetch_commit(f"file://{tmp_path}/nothing", "v1", tmp_path / "c")


def test_an_option_is_no_ref(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a ref"):
        fetch_commit(f"file://{repository}", "--upload-pack=x", tmp_path / "c")


def test_a_password_is_in_neither_argv_nor_message(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        fetch_commit("http://user:hunter2@127.0.0.1:9/o/r", "v1", tmp_path / "c")
    assert "hunter2" not in caught.value.message
    assert "http://127.0.0.1:9/o/r" in caught.value.message


def test_ssh_goes_through_the_user_s_own_program(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No ssh server here: the user's ssh command is one that runs git's side locally.
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\necho "$@" >> "$0.log"\nfor last; do :; done\nexec sh -c "$last"\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    monkeypatch.setenv("GIT_SSH_VARIANT", "ssh")
    found = fetch_commit(f"git@git.example.org:{repository}", "v1", tmp_path / "c")
    assert found.commit == run_git(repository, "rev-parse", "v1^{commit}")
    assert "git@git.example.org" in (tmp_path / "ssh.log").read_text()


def test_a_stuck_server_runs_into_the_time_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\nexec sleep 60\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    monkeypatch.setenv("GIT_SSH_VARIANT", "ssh")
    with pytest.raises(UserError, match=r"can't fetch git@h\.example:o/r: no answer in time"):
        fetch_commit("git@h.example:o/r", "v1", tmp_path / "c", timeout=0.5)


def test_a_path_in_a_submodule_is_known(repository: Path, tmp_path: Path) -> None:
    commit = run_git(repository, "rev-parse", "v1^{commit}")
    run_git(repository, "update-index", "--add", "--cacheinfo", f"160000,{commit},sub/mod")
    run_git(repository, "commit", "-q", "-m", "submodule")
    tree = GitTree(fetch_commit(str(repository), "main", tmp_path / "c"))
    assert tree.find_submodule("sub/mod/d") == "sub/mod"
    assert tree.find_submodule("d") is None
    assert "sub/mod" not in tree.load_files()[0]


def test_a_work_tree_says_its_commit_and_tag(repository: Path) -> None:
    assert git.read_head(repository) == run_git(repository, "rev-parse", "HEAD")
    assert git.find_head_tag(repository) is None
    run_git(repository, "tag", "v2")
    assert git.find_head_tag(repository) == "v2"
    assert git.resolve_ref(repository, "v1") == run_git(repository, "rev-parse", "v1^{commit}")
    assert git.resolve_ref(repository, "v9") is None
