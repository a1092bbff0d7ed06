using NbdKit.Faults;

return await FaultMatrix.RunAsync(args);
