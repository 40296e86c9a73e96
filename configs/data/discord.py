"""Chats with bots on Discord, as DiscordChatExporter writes them (JSON) -> dialogues.

Command:   python -m imitation_jax.prepare --config=configs/data/discord.py --config.input="export/*.json" --output=DIR
Hardware:  any CPU.
Time:      about 1,000 dialogues a second on one core.
Expected:  the paper has 10K input-output examples of two servers. Addresses, phone numbers and keys are replaced, as
           these are chats of people who can be found.
"""

from imitation_jax.data import prepare


def get_config():
    config = prepare.get_config("discord")
    config.steps = "error_replies,repetition,language,exact_duplicates,near_duplicates,personal_data"
    return config
