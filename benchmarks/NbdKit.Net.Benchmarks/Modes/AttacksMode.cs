using NbdKit.Benchmarks.Attacks;
using NbdKit.Benchmarks.Report;
using NbdKit.Benchmarks.Servers;

namespace NbdKit.Benchmarks.Modes;

/// <summary>What hostile clients do to this project, nbdkit, qemu-nbd and nbd-server: who is still there afterwards.</summary>
internal static class AttacksMode
{
    private const long DiskBytes = 64 << 20;

    public static string Run(Settings settings)
    {
        using var scratch = new Scratch(settings.Directory);
        string image = scratch.NewImage("disk.img", DiskBytes);
        (string Name, Func<ServerCommand> Command)[] servers =
        [
            ("NbdKit.Net", () => ServerCommand.Ours(settings, scratch.NewSocket(), "memory", $"{DiskBytes}")),
            ("nbdkit", () => ServerCommand.Nbdkit(scratch.NewSocket(), "memory", $"{DiskBytes}")),
            ("qemu-nbd", () => ServerCommand.QemuNbd(scratch.NewSocket(), image)),
            ("nbd-server", () => ServerCommand.NbdServer(scratch, image)),
        ];
        servers = [.. servers.Where(server => server.Name == "NbdKit.Net" || Programs.Exists(server.Name))];
        var table = new MarkdownTable(["attack", .. servers.Select(server => server.Name)]);
        foreach (Attack attack in Attack.All)
        {
            table.Add([attack.Name, .. servers.Select(server =>
            {
                Console.Error.WriteLine($"attacks: {server.Name}: {attack.Name}");
                return One(attack, server.Command());
            })]);
        }
        string[] versions = [.. servers.Skip(1).Select(server => Programs.FirstLine(server.Name, "--version") ?? $"{server.Name} of this system")];
        return $"""
            ## Attacks

            {Machine.Describe(settings, "once, each attack on a server of its own over a Unix socket")}
            Versions: {string.Join("; ", versions)}.

            "survived": a polite client is served within a second afterwards. The memory is the most that was resident in the server's
            process (nbd-server's first, which starts another for each client).

            {table}
            """;
    }

    private static string One(Attack attack, ServerCommand command)
    {
        if (attack.Descriptors is { } descriptors)
        {
            command = command with
            {
                Program = "prlimit",
                Arguments = [$"--nofile={descriptors}", command.Program, .. command.Arguments],
            };
        }
        using ServerProcess server = ServerProcess.Start(command);
        var victim = new Victim(server, command.ExportName);
        string seen = attack.Run(victim);
        string memory = server.PeakBytes is > 0 and var peak ? $"{Figures.Mebibytes(peak)} MiB" : "";
        string after = attack.Stops ? "" : victim.Ask();
        string outcome = after switch
        {
            "" => server.HasEnded && server.EndedWell ? "survived" : server.HasEnded ? "ended badly" : "hung",
            "served" => "survived",
            "ended" => "**ended**",
            _ => after.StartsWith("served", StringComparison.Ordinal) ? after : $"**hung**: {after}",
        };
        return string.Join(", ", new[] { outcome, seen, memory }.Where(text => text.Length > 0));
    }
}
