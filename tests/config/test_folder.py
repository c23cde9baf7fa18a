"""Where ``conf/`` lies, and Hydra's messages as one sentence."""

from omegaconf.errors import OmegaConfBaseException

from kd.config.folder import configuration_folder, one_sentence


def test_the_folder_holds_the_configuration():
    assert (configuration_folder() / "config.yaml").is_file()


def test_several_lines_and_their_cause_become_one_sentence():
    error = ValueError("Could not override 'x'.\n  To append use +x")
    error.__cause__ = OmegaConfBaseException("Key 'x' is not in struct\n    full_key: x")
    assert one_sentence(error) == "x: there is no such option; kd train --help lists the options"
    error.__cause__ = OmegaConfBaseException("Key 'y' is not in struct\n    full_key: x")
    assert one_sentence(error) == "Could not override 'x'. To append use +x: Key 'y' is not in struct"
