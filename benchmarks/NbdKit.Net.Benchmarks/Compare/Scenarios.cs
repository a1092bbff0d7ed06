using NbdKit.Benchmarks.Load;
using NbdKit.Benchmarks.Servers;

namespace NbdKit.Benchmarks.Compare;

/// <summary>What is compared.</summary>
internal static class Scenarios
{
    private const int DiskMebibytes = 256;
    private const int FilterCount = 10;

    /// <summary>The scenarios for which there is time and a filter; peers that are not installed are left out.</summary>
    public static IReadOnlyList<Scenario> All(Settings settings, Scratch scratch)
    {
        string? image = null;
        // Made when the first server asks for it: not everything needs it.
        string Image() => image ??= scratch.NewImage("disk.img", (long)DiskMebibytes << 20);
        var scenarios = new List<Scenario>
        {
            Memory(settings),
            new(
                "file",
                $"`file` of {DiskMebibytes} MiB, in the page cache",
                [.. OverFile(settings, Image), .. QemuNbd(Image)],
                Works("file-", "4k-read-qd64", "4k-write-qd64", "256k-read-qd16")),
        };
        var catalogue = new NbdCatalogue();
        foreach (string filter in (string[])["cow", "cache"])
        {
            if (catalogue.Filters.Any(entry => entry.Name == filter))
            {
                scenarios.Add(new(
                    filter,
                    $"`{filter}` over that file",
                    OverFile(settings, Image, $"--filter={filter}"),
                    Works($"{filter}-", "4k-read-qd64", "4k-write-qd64")));
            }
        }
        scenarios.Add(Filters(settings));
        return scenarios;
    }

    private static Scenario Memory(Settings settings)
    {
        string[] arguments = ["memory", $"{DiskMebibytes}M"];
        return new("memory", $"`memory` of {DiskMebibytes} MiB, all of it written", Pair(settings, () => arguments), Work.All) { Fills = true };
    }

    private static Scenario Filters(Settings settings)
    {
        string[] plain = ["memory", $"{DiskMebibytes}M"];
        string[] filtered = [.. Enumerable.Repeat("--filter=nofilter", FilterCount), .. plain];
        return new(
            "filters",
            $"{FilterCount} `nofilter` filters over memory, and none",
            [
                Ours($"{FilterCount} filters", settings, () => filtered),
                Ours("no filter", settings, () => plain) with { Column = "no filter" },
            ],
            Works($"nofilter{FilterCount}-", "4k-read-qd64", "4k-write-qd64"))
        {
            Fills = true,
        };
    }

    private static IReadOnlyList<Contestant> OverFile(Settings settings, Func<string> image, params string[] filters)
        => Pair(settings, () => [.. filters, "file", image()]);

    private static IReadOnlyList<Contestant> Pair(Settings settings, Func<string[]> arguments)
        =>
        [
            Ours("NbdKit.Net", settings, arguments),
            .. Installed(new Contestant("nbdkit", "nbdkit", s => ServerCommand.Nbdkit(s.NewSocket(), arguments()))),
        ];

    // The mode of Linux' own asynchronous calls goes around the page cache, in all servers that have it.
    private static IEnumerable<Contestant> QemuNbd(Func<string> image)
        => Installed(
        [
            QemuNbd(image, "threads", "--aio=threads"),
            QemuNbd(image, "io_uring", "--aio=io_uring"),
            QemuNbd(image, "native", "--aio=native", "--cache=none"),
        ]);

    private static Contestant QemuNbd(Func<string> image, string mode, params string[] arguments)
        => new("qemu-nbd", $"qemu-nbd, {mode}", s => ServerCommand.QemuNbd(s.NewSocket(), image(), arguments));

    private static Contestant Ours(string name, Settings settings, Func<string[]> arguments)
        => new(Contestant.OursColumn, name, s => ServerCommand.Ours(settings, s.NewSocket(), arguments()));

    private static IEnumerable<Contestant> Installed(params Contestant[] contestants)
        => contestants.Where(contestant => Programs.Exists(contestant.Column));

    private static Work[] Works(string prefix, params IEnumerable<string> names)
        => [.. names.Select(name => Work.Find(name, prefix))];
}
