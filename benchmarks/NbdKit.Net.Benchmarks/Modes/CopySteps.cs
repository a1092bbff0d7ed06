using NbdKit.Benchmarks.Servers;

namespace NbdKit.Benchmarks.Modes;

/// <summary>How a program copies an image into a server and out again.</summary>
internal sealed record CopySteps(
    string Program, Func<string, string, string, IReadOnlyList<(string Step, string[] Arguments)>> Commands)
{
    /// <summary>The programs that are there.</summary>
    public static IReadOnlyList<CopySteps> Installed { get; } =
    [
        .. ((CopySteps[])
        [
            new("nbdcopy", (image, uri, copy) =>
            [
                ("nbdcopy in", [image, uri]),
                ("nbdcopy out", [uri, copy]),
                ("nbdcopy out to nowhere", [uri, "null:"]),
            ]),
            new("qemu-img", (image, uri, copy) =>
            [
                ("qemu-img convert in", ["convert", "-n", "-f", "raw", "-O", "raw", image, uri]),
                ("qemu-img convert out", ["convert", "-f", "raw", "-O", "raw", uri, copy]),
            ]),
        ]).Where(steps => Programs.Exists(steps.Program)),
    ];
}
