//! Training of dense autoencoders on a machine that runs our CUDA kernels: parameters, gradients and moments in one array
//! each, all of a step in fixed places of memory, so that it is recorded once and then repeated as a whole; the training
//! rows on the device where they fit; losses summed there and read once an epoch. The order of the rows is the host's, so that
//! every device learns from the same batches; rows are gathered on the device.

mod network;
mod rows;
mod trainer;

pub(super) use trainer::Trainer;

#[cfg(test)]
mod tests;
