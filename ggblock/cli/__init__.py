"""The command line: one file per command, and the only room that prints or parses arguments.

``commands.py`` lists the commands, ``main.py`` holds the group ``ggblock``, ``common.py`` what commands share.
A command's file is imported when the command is invoked. It imports the engine, the tokenizer and other heavy rooms
*inside* its function, so that ``ggblock COMMAND --help`` is fast too; ``tests/test_imports.py`` checks that.
"""
