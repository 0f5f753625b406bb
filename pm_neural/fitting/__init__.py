"""The ground floor of training: loop, learner, optimizer, minibatches, schedule, checkpoint, history."""
