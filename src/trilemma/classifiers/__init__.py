"""Small classifiers: features of images, whether a class that was asked for is drawn, verdicts on augmentation."""
