"""The students and their initialisation. Importing this package registers them with transformers' Auto classes."""

from transformers import AutoConfig, AutoModelForSequenceClassification

from kd.models.bag import Bag, BagConfig
from kd.models.base import Student, StudentConfig
from kd.models.bilstm import BiLSTM, BiLSTMConfig
from kd.models.bow import DAN, MLP, DANConfig, MLPConfig
from kd.models.composition import ComposedStudent, ComposedStudentConfig
from kd.models.fitted import FittedConfig, FittedStudent, Majority, MajorityConfig
from kd.models.hashed import HashedNGrams, HashedNGramsConfig
from kd.models.textcnn import TextCNN, TextCNNConfig

for student in (MLP, DAN, TextCNN, BiLSTM, ComposedStudent, Bag, Majority, HashedNGrams):
    AutoConfig.register(student.config_class.model_type, student.config_class, exist_ok=True)
    AutoModelForSequenceClassification.register(student.config_class, student, exist_ok=True)

__all__ = ["DAN", "MLP", "BiLSTM", "BiLSTMConfig", "ComposedStudent", "ComposedStudentConfig", "DANConfig", "MLPConfig"]
__all__ += ["Bag", "BagConfig", "FittedConfig", "FittedStudent", "HashedNGrams", "HashedNGramsConfig"]
__all__ += ["Majority", "MajorityConfig"]
__all__ += ["Student", "StudentConfig", "TextCNN", "TextCNNConfig"]
