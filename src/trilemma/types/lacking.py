"""Why a model without a capability cannot do what needs it."""

from trilemma.types.batch import WITHOUT_LABELS
from trilemma.types.codes import Decodes, Encodes, Inverts
from trilemma.types.hooks import JudgesRealness
from trilemma.types.likelihoods import BoundsByPath, BoundsLikelihood
from trilemma.types.sampling import Conditional, ReadsCaptions, Redraws, Samples, Upscales

LACKING = {  # why a model without a capability cannot do what needs it
    Samples: "does not draw samples",
    Encodes: "has no encoder",
    Decodes: "has no decoder",
    Inverts: "does not search for what it draws an image from",
    JudgesRealness: "has no critic",
    Redraws: "does not draw images out of noisy ones",
    BoundsLikelihood: "has no bound on the likelihood",
    BoundsByPath: "has no path from images to noise",
    Conditional: WITHOUT_LABELS,
    ReadsCaptions: "was trained without captions",
    Upscales: "was not trained to enlarge images",
}
TRAINED_WITH = {Conditional: "classes", ReadsCaptions: "captions"}  # the setting of models that may have a capability
