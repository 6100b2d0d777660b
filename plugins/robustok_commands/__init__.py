"""The commands of `robustok` besides `run`, one file each; entry points in the group "robustok.commands"."""
