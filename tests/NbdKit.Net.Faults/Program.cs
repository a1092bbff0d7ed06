using NbdKit.Faults;
using NbdKit.Faults.Hostile;

// Servers that rows start, limit and kill are this program too.
return args switch
{
    ["--serve", ..] => await ServingChild.RunAsync(args[1..]),
    ["--lossy", ..] => await LossyNetwork.ServeAsync(args[1..]),
    _ => await FaultMatrix.RunAsync(args),
};
