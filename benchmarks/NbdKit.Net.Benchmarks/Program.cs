using BenchmarkDotNet.Running;
using NbdKit.Benchmarks;
using NbdKit.Benchmarks.Modes;

string name = args.FirstOrDefault("");
switch (name)
{
    case ServeMode.Name:
        await ServeMode.RunAsync(args[1..]);
        return 0;
    case FirstRead.Name:
        await FirstRead.RunAsync();
        return 0;
    case "modes":
        Console.WriteLine($"Modes:\n{string.Concat(Mode.All.Select(mode => $"  {mode.Name,-17} {mode.Help}\n"))}"
            + $"  {"all",-17} all of these\nOptions:\n{Settings.Help}\nAnything else is for BenchmarkDotNet.");
        return 0;
}
Mode[] modes = [.. Mode.All.Where(mode => mode.Name == name || name == "all")];
if (modes.Length == 0)
{
    BenchmarkSwitcher.FromAssembly(typeof(Program).Assembly).Run(args);
    return 0;
}
try
{
    Settings settings = Settings.Parse(args.AsSpan(1));
    foreach (Mode mode in modes)
    {
        mode.Run(settings);
    }
    return 0;
}
catch (UsageException e)
{
    Console.Error.WriteLine(e.Message);
    Console.Error.WriteLine($"Options:\n{Settings.Help}");
    return 2;
}
