"""The timeline: samples of every clock in, frames on one grid out."""
