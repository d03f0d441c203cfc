"""`penstock doctor`: prints what `checks` finds."""

from __future__ import annotations

import click
from msgspec import to_builtins

from penstock.cli.checks import examine
from penstock.cli.findings import Finding, Level
from penstock.cli.target import Target
from penstock.cli.terminal import clean, echo_json, faint

MARKS = {Level.OK: ("✓", "green"), Level.NOTE: ("·", "cyan"), Level.WARNING: ("!", "yellow"), Level.ERROR: ("✗", "red")}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check the set-up, and say what to fix.

    Exit code: 1 when something does not work; warnings alone are 0.
    """
    target: Target = ctx.obj
    findings = []
    for finding in examine(target):
        findings.append(finding)
        if not as_json:
            show(finding)
    if as_json:
        echo_json(to_builtins(findings))
    errors = sum(finding.level is Level.ERROR for finding in findings)
    warnings = sum(finding.level is Level.WARNING for finding in findings)
    if not as_json:
        click.echo(verdict(errors, warnings))
    ctx.exit(1 if errors else 0)


def show(finding: Finding) -> None:
    mark, colour = MARKS[finding.level]
    click.echo(f"{click.style(mark, fg=colour, bold=True)} {finding.what:<12} {clean(finding.text, keep=chr(10))}")
    if finding.remedy:
        click.echo(f"  {'':<12} {faint('→')} {clean(finding.remedy)}")


def verdict(errors: int, warnings: int) -> str:
    if errors:
        return click.style(f"{errors} to fix", fg="red", bold=True) + (f", {warnings} to look at" if warnings else "")
    if warnings:
        return click.style(f"works; {warnings} to look at", fg="yellow", bold=True)
    return click.style("all is well", fg="green", bold=True)
