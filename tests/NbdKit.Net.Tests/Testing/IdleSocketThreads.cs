using System.Globalization;

namespace NbdKit.Tests.Testing;

/// <summary>The threads of all servers in this process that wait for idle sockets (Linux).</summary>
internal static class IdleSocketThreads
{
    // The kernel cuts names after 15 bytes.
    private const string Name = "NBD idle socket";

    public static int Count => Threads().Count();

    /// <summary>The processor time that they have used, in hundredths of a second.</summary>
    public static long Ticks => Threads().Sum(facts => Number(facts[11]) + Number(facts[12]));

    /// <summary>For each what follows its name in <c>/proc/self/task/…/stat</c>.</summary>
    private static IEnumerable<string[]> Threads()
    {
        foreach (string thread in Directory.GetDirectories("/proc/self/task"))
        {
            string text;
            try
            {
                text = File.ReadAllText(Path.Combine(thread, "stat"));
            }
            catch (IOException)
            {
                // It has just ended.
                continue;
            }
            if (text.Contains($"({Name})", StringComparison.Ordinal))
            {
                yield return text[(text.LastIndexOf(')') + 2)..].Split(' ');
            }
        }
    }

    private static long Number(string text) => long.Parse(text, CultureInfo.InvariantCulture);
}
