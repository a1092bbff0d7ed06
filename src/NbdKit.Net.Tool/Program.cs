using NbdKit.Tool;

return await Command.RunAsync(args).ConfigureAwait(false);
