"""``maskrl serve-reward``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskrl.cli.source import SetOption
from maskrl.errors import RecipeError


def serve_reward(
    recipe: Annotated[
        str,
        typer.Option("--recipe", help="A recipe: its [reward] is served, and nothing else of it is loaded."),
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0: where the system likes.")],
    host: Annotated[
        str, typer.Option(help="For other machines an address of this one, and a token.")
    ] = "127.0.0.1",
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="A file with the token that is asked for; else MASKRL_REWARD_TOKEN, if there is one."
        ),
    ] = None,
    overrides: SetOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    max_request: Annotated[
        int, typer.Option(min=1, help="MiB of the largest request, and of its images as fp32.")
    ] = 512,
) -> None:
    """Serve a recipe's reward over HTTP, for runs whose reward is 'remote'."""
    from maskrl.component import Needs
    from maskrl.recipe import read_recipe
    from maskrl.rewards.remote_token import VARIABLE, token_of_environment, token_of_file

    try:
        from maskrl.serving import app, listening, served
    except ModuleNotFoundError as error:
        raise RecipeError(f"maskrl serve-reward needs {error.name!r}: pip install 'maskrl[serve]'") from error
    token = token_of_environment(VARIABLE) if token_file is None else token_of_file(token_file)
    listening.check_host(host, token)
    chosen = read_recipe(recipe, overrides or (), Needs((), ()))
    with listening.listen(host, port) as opened:
        reward = served.ServedReward(chosen.reward, device, max_request * 2**20)
        judge = reward.judge
        typer.echo(f"reward {judge.reward!r}, {judge.judge[:12]}, on {listening.address_of(opened)}")
        server = listening.server_of(app.make_app(reward, token, judge.max_request))
        server.run(sockets=[opened])
