namespace NbdKit.Tests.Filters;

// Extent trees and indirect blocks.
public sealed partial class Ext2FilterHostileTests
{
    /// <summary>Gives the file one entry in the root of its tree.</summary>
    private byte[] WithRoot(int depth, int entries, int room, long key, int length, long place, long size = 20_001)
    {
        byte[] image = Bytes(_plain);
        long map = _big + 0x28;
        U32(image, _big + 4, size);
        U32(image, _big + 0x6C, size >> 32);
        U16(image, map, 0xF30A);
        U16(image, map + 2, entries);
        U16(image, map + 4, room);
        U16(image, map + 6, depth);
        U32(image, map + 12, key);
        if (depth == 0)
        {
            U16(image, map + 16, length);
            U16(image, map + 18, (int)(place >> 32));
            U32(image, map + 20, place);
        }
        else
        {
            U32(image, map + 16, place);
            U16(image, map + 20, (int)(place >> 32));
        }
        return image;
    }

    private static readonly object[] FalseTrees =
    [
        new object[] { 6, 1, 4, 0L, 1, 100L, "6 levels deep" },
        new object[] { 65535, 1, 4, 0L, 1, 100L, "levels deep" },
        new object[] { 0, 5, 4, 0L, 1, 100L, "a node that is none" },
        new object[] { 0, 5, 5, 0L, 1, 100L, "a node that is none" },
        new object[] { 0, 65535, 65535, 0L, 1, 100L, "a node that is none" },
        new object[] { 1, 0, 4, 0L, 1, 100L, "a node that is none" },
        new object[] { 0, 1, 4, 0L, 0, 100L, "empty, overlap" },
        new object[] { 0, 1, 4, 0xFFFF_FFFFL, 2, 100L, "belong elsewhere" },
        new object[] { 0, 1, 4, 0L, 100, 200L, "outside the file system" },
        new object[] { 0, 1, 4, 0L, 100, 1L, "outside the file system" },
        new object[] { 0, 1, 4, 0L, 100, 0L, "outside the file system" },
        new object[] { 0, 1, 4, 0L, 100, 0xFFFF_FFFF_FFFFL, "outside the file system" },
        new object[] { 1, 1, 4, 0L, 0, 0L, "outside the file system" },
        new object[] { 1, 1, 4, 0L, 0, 256L, "outside the file system" },
        new object[] { 1, 1, 4, 0L, 0, 0xFFFF_FFFF_FFFFL, "outside the file system" },
        new object[] { 1, 1, 4, 0L, 0, 2L, "a node that is none" },
    ];

    [TestCaseSource(nameof(FalseTrees))]
    public void An_extent_tree_that_cannot_be_true_is_refused(
        int depth, int entries, int room, long key, int length, long place, string message)
        => Assert.That(Refusal(WithRoot(depth, entries, room, key, length, place)), Does.Contain(message));

    [Test]
    public void A_node_that_is_its_own_child_is_refused()
    {
        const int Node = 200;
        byte[] image = WithRoot(5, 1, 4, 0, 0, Node);
        long node = Node * Block;
        U16(image, node, 0xF30A);
        U16(image, node + 2, 1);
        U16(image, node + 4, 84);
        U16(image, node + 6, 4);
        U32(image, node + 12, 0);
        U32(image, node + 16, Node);
        Assert.That(Refusal(image), Does.Contain("a node that is none"));
    }

    [Test]
    public void A_node_in_the_wrong_place_is_refused()
    {
        const int Node = 200;
        byte[] image = WithRoot(1, 1, 4, 5, 0, Node);
        long node = Node * Block;
        U16(image, node, 0xF30A);
        U16(image, node + 2, 1);
        U16(image, node + 4, 84);
        U16(image, node + 6, 0);
        U32(image, node + 12, 4);
        U16(image, node + 16, 10);
        U32(image, node + 20, 100);
        Assert.That(Refusal(image), Does.Contain("belong elsewhere"));
    }

    [Test]
    public async Task A_file_of_any_size_with_one_extent_takes_few_calls()
    {
        const long Size = (1L << 42) - 1;
        (long size, int calls) = await UseAsync(WithRoot(0, 1, 4, 0, 100, 100, Size));
        Assert.That(size, Is.EqualTo(Size));
        Assert.That(calls, Is.LessThan(15));
        Assert.That(Refusal(WithRoot(0, 1, 4, 0, 100, 100, Size + 2)), Does.Contain("more than its map can hold"));
        Assert.That(Refusal(WithRoot(0, 1, 4, 0, 100, 100, -1)), Does.Contain("inode"));
    }

    [TestCase(12)]
    [TestCase(13)]
    [TestCase(14)]
    public async Task Indirect_blocks_that_contain_themselves_end(int pointer)
    {
        const int Node = 200;
        byte[] image = Bytes(_old);
        U32(image, _bigOld + 4, 0xFFFF_FFFF);
        U32(image, _bigOld + 0x28 + (4 * pointer), Node);
        for (int i = 0; i < Block; i += 4)
        {
            U32(image, (Node * Block) + i, Node);
        }
        (long size, int calls) = await UseAsync(image);
        Assert.That(size, Is.EqualTo(0xFFFF_FFFFL));
        Assert.That(calls, Is.LessThan(200));
    }

    [TestCase(0, 1u)]
    [TestCase(0, 256u)]
    [TestCase(11, uint.MaxValue)]
    [TestCase(12, 1u)]
    [TestCase(12, 256u)]
    [TestCase(12, uint.MaxValue)]
    public void A_block_outside_the_file_system_is_refused(int pointer, uint block)
    {
        byte[] image = Bytes(_old);
        U32(image, _bigOld + 0x28 + (4 * pointer), block);
        Assert.That(Refusal(image), Does.Contain("outside the file system"));
    }

    [Test]
    public void A_file_that_is_larger_than_its_map_can_be_is_refused()
    {
        byte[] image = Bytes(_old);
        U32(image, _bigOld + 0x6C, 0x7FFF_FFFF);
        Assert.That(Refusal(image), Does.Contain("more than its map can hold"));
        U32(image, _bigOld + 0x6C, 0xFFFF_FFFF);
        Assert.That(Refusal(image), Does.Contain("bytes"));
    }
}
