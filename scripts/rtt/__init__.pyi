from rtt.api import Evaluation as Evaluation
from rtt.api import Scores as Scores
from rtt.api import Study as Study
from rtt.api import UserError as UserError
from rtt.api import Verdict as Verdict
from rtt.api import load_study as load_study
from rtt.api import score as score
from rtt.api import verdict as verdict

__version__: str
