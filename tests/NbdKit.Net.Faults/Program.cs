using NbdKit.Faults;
using NbdKit.Faults.Hostile;

// Servers that rows start, limit and kill are this program too.
return args is ["--serve", ..] ? await ServingChild.RunAsync(args[1..]) : await FaultMatrix.RunAsync(args);
