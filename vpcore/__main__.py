from vpcore.cli import main

main(prog_name="vpcore")
