namespace NbdKit.Tests.Testing;

/// <summary>Directory trees to be put on FAT disks.</summary>
internal static class FatTrees
{
    private static readonly string[] Alphabets = ["ab", "ABCabc012~", "xyz .+,;=[]", "äßŁ日本", "longfilename.txt"];

    /// <summary>Makes a random tree: names of all lengths, many alike, and files of sizes around those of clusters.</summary>
    /// <param name="path">An empty directory.</param>
    /// <param name="seed">Where it comes from.</param>
    /// <param name="more">Further characters, each a string, that names may have.</param>
    public static void Make(string path, int seed, params string[] more)
    {
        var random = new Random(seed);
        var directories = new List<string> { path };
        var taken = new HashSet<string>(StringComparer.OrdinalIgnoreCase);
        int count = random.Next(20, 200);
        while (taken.Count < count)
        {
            string[] alphabet = [.. Alphabets[random.Next(Alphabets.Length)].Select(c => c.ToString()), .. more];
            int length = random.Next(6) == 0 ? random.Next(1, 80) : random.Next(1, 14);
            string name = string.Concat(Enumerable.Range(0, length).Select(_ => alphabet[random.Next(alphabet.Length)])).TrimEnd('.', ' ');
            string entry = Path.Combine(directories[random.Next(directories.Count)], name);
            if (name.Length == 0 || name is "." or ".." || !taken.Add(entry))
            {
                continue;
            }
            if (random.Next(5) == 0)
            {
                Directory.CreateDirectory(entry);
                directories.Add(entry);
            }
            else
            {
                int size = random.Next(4) switch { 0 => 0, 1 => 512 * random.Next(20), 2 => random.Next(10), _ => random.Next(60_000) };
                File.WriteAllBytes(entry, TestData.Random(size, random.Next()));
                // Up to 2098: mtools takes 2100 for a leap year.
                File.SetLastWriteTime(entry, new DateTime(1980, 1, 1).AddSeconds(2L * random.Next(1_870_000_000)));
            }
        }
    }
}
